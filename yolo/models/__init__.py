"""Networks: encoder -> neck -> head, joined by the detector. They never see the truth."""
