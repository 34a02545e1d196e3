import torch
from torch import nn

from yolo.detection.coders import GridCoder
from yolo.detection.tta import AugmentedDetector


class Seen(nn.Module):
    """Passes images on and remembers their sides."""

    def __init__(self):
        super().__init__()
        self.sides = []

    def forward(self, images):
        self.sides.append(images.shape[-1])
        return images


class Bright(nn.Module):
    """Finds the box around the bright pixels of an image, with the score 0.5 for one class."""

    def forward(self, images):
        boxes = []
        for image in images.amax(dim=1):
            rows, columns = (image > 127).nonzero(as_tuple=True)
            low = torch.stack((columns.min(), rows.min()))
            boxes.append(torch.cat((low, columns.max()[None] + 1, rows.max()[None] + 1)))
        return torch.stack(boxes)[:, None].float(), torch.full((len(images), 1, 1), 0.5)


def rectangles(size_px, *boxes_xyxy):
    """An image for each box, white in it and black elsewhere."""
    images = torch.zeros(len(boxes_xyxy), 3, size_px, size_px, dtype=torch.uint8)
    for image, (left, top, right, bottom) in zip(images, boxes_xyxy, strict=True):
        image[:, top:bottom, left:right] = 255
    return images


def test_the_boxes_of_all_passes_are_where_the_object_is():
    truth = [(30, 40, 130, 190), (200, 10, 390, 70)]
    boxes, scores = AugmentedDetector(Seen(), Bright())(rectangles(416, *truth))
    assert boxes.shape == (2, 6, 4) and scores.tolist() == [[[0.5]] * 6] * 2
    expected = torch.tensor(truth).float()[:, None].expand(2, 6, 4)
    assert torch.equal(boxes[:, 2:4], expected[:, 2:4]), "its own size"
    torch.testing.assert_close(boxes, expected, rtol=0, atol=1.2)  # a pixel of the smaller input


def test_sides_are_multiples_of_32_and_differ():
    for size_px, sides in ((416, [352, 416, 480]), (320, [256, 320, 384]), (64, [64])):
        seen = Seen()
        AugmentedDetector(seen, Bright())(rectangles(size_px, (8, 8, 24, 24)))
        assert seen.sides == [side for side in sides for _ in range(2)]


def test_a_yolov1_sees_the_image_and_its_mirror_at_its_one_size():
    class Cells(GridCoder):
        forward = Bright.forward

    seen, images = Seen(), rectangles(448, (8, 16, 24, 20))
    boxes, _ = AugmentedDetector(seen, Cells(cells=7, boxes=2))(images)
    assert boxes.tolist() == [[[8, 16, 24, 20]] * 2] and seen.sides == [448, 448]
