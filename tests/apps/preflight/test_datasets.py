from yolo.apps.preflight.datasets import END_BYTES, same_content


def test_only_the_same_bytes_are_grouped(tmp_path):
    """Equal size alone, or an equal end alone, is not enough."""
    end = b"e" * END_BYTES
    contents = [b"a" + end, b"b" + end, b"a" + end, b"c" + end[1:] + b"x", b"", b"short", b""]
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    assert sorted(same_content(paths)) == [[0, 2], [4, 6]]
    assert same_content([]) == same_content(paths[:2]) == []
