"""The demo page: a picture in, boxes, a table and EigenCAM maps out; and the same as a Space."""
