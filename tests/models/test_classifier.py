import pytest
import torch

from yolo.models.detector import Classifier
from yolo.models.encoders import ENCODERS
from yolo.models.layers import IMAGENET, UNIT_RANGE
from yolo.models.summary import dry_run


@pytest.mark.parametrize(
    ("name", "parameters", "running_statistics"),
    [("darknet53", 41_609_928, 35_712), ("darknet19", 20_842_376, 14_400)],
)
def test_parameters_are_darknets(name, parameters, running_statistics):
    """Its file holds both: 41,645,640 and 20,856,776 floats."""
    with torch.device("meta"):
        classifier = Classifier(encoder=ENCODERS[name](), classes=1000)
    assert sum(p.numel() for p in classifier.parameters()) == parameters
    statistics = [b for n, b in classifier.named_buffers() if "running" in n]
    assert sum(b.numel() for b in statistics) == running_statistics
    assert dry_run(classifier, 64).parameters == parameters


def test_its_answer_is_that_of_pooling_behind_the_last_layer():
    """As in Darknet-19: both are linear."""
    classifier = Classifier(encoder=ENCODERS["darknet_tiny"](width=0.25), classes=7).eval()
    images = torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8)
    with torch.no_grad():
        answer = classifier(images)
        stride32 = classifier.encoder(classifier.normalise(images))[2]
        after = classifier.head(stride32).mean(dim=(2, 3))
    assert answer.shape == (2, 7)
    torch.testing.assert_close(answer, after, rtol=1e-4, atol=1e-5)


def test_dropout_is_for_training_alone():
    encoder = ENCODERS["darknet_tiny"](width=0.25).eval()
    classifier = Classifier(encoder=encoder, classes=3, dropout=0.5).eval()
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(classifier(images), classifier(images))
        classifier.dropout.train()
        assert not torch.equal(classifier(images), classifier(images))


def test_the_input_is_what_the_encoder_expects_unless_told_otherwise():
    encoder = ENCODERS["darknet_tiny"](width=0.25)
    assert encoder.preprocessing == UNIT_RANGE
    assert Classifier(encoder=encoder, classes=3).normalise.mean.flatten().tolist() == [0, 0, 0]
    told = Classifier(encoder=encoder, classes=3, preprocessing=IMAGENET)
    torch.testing.assert_close(told.normalise.std.flatten(), torch.tensor(IMAGENET.std))
