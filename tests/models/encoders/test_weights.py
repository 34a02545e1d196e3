import pytest
import torch

from yolo.errors import UserError
from yolo.models.encoders import ENCODERS
from yolo.models.yolov3 import yolov3

tiny = ENCODERS["darknet_tiny"]


def same_weights(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("kind", ["encoder", "model", "checkpoint"])
def test_an_encoder_is_found_in_every_kind_of_file(kind, tmp_path):
    model = yolov3(encoder=tiny(width=0.25), classes=2, neck_width="scaled")
    state = model.state_dict()
    content = {
        "encoder": model.encoder.state_dict(),
        "model": state,
        "checkpoint": {"model": state, "step": 7},
    }[kind]
    torch.save(content, tmp_path / "weights.pt")
    loaded = tiny(width=0.25, weights=tmp_path / "weights.pt")
    assert same_weights(loaded, model.encoder)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pt: no such weights file"):
        tiny(weights=tmp_path / "nowhere.pt")


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0\2\0\0\0" * 100, b"not tensors"])
def test_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / "darknet53.conv.74"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"conv\.74: not a PyTorch state_dict"):
        tiny(weights=path)


@pytest.mark.parametrize("content", [[1, 2], {"step": 3}, {}])
def test_a_file_without_tensors(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: not a PyTorch state_dict"):
        tiny(weights=tmp_path / "other.pt")


def test_another_width_tells_how_many_tensors_match(tmp_path):
    torch.save(tiny(width=0.5).state_dict(), tmp_path / "half.pt")
    expected = r"half\.pt: 0 of the encoder's 35 tensors match.* convs\.0\.conv\.weight"
    with pytest.raises(UserError, match=expected):
        tiny(width=1.0, weights=tmp_path / "half.pt")


def test_a_file_that_lacks_one_tensor_is_refused(tmp_path):
    state = tiny(width=0.25).state_dict()
    del state["convs.6.norm.running_var"]
    torch.save(state, tmp_path / "partial.pt")
    with pytest.raises(UserError, match=r"34 of the encoder's 35 .* convs\.6\.norm\.running_var"):
        tiny(width=0.25, weights=tmp_path / "partial.pt")


def test_step_counters_may_be_absent_as_in_old_files(tmp_path):
    reference = tiny(width=0.25)
    state = reference.state_dict()
    kept = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "old.pt")
    assert same_weights(tiny(width=0.25, weights=tmp_path / "old.pt"), reference)
