"""The three writers of the package: entries of memory, exports, and pages of audits."""


def contents():
    """The two things that are written: each is known by its first byte."""
    return [bytes([65 + i]) * 2_000_000 for i in range(2)]


def writer(kind, folder):
    """Return a function that writes one of the two contents."""
    if kind == "entry":
        from skqfair.storage._entry import Entry

        return lambda content: Entry(str(folder)).write(content)
    if kind == "page":
        from skqfair.audit._write import write_text

        return lambda content: write_text(content.decode(), folder / "page.html")
    from skqfair._files import write_whole  # what to_onnx ends with

    return lambda content: write_whole(folder / "model.onnx", content)
