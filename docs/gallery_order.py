"""The order of the examples: from a first look to the details."""

_ORDER = (
    "rounding",
    "bit_width_grid",
    "choose_metric",
    "audit_csv",
    "foreign_models",
    "mixed_precision",
    "fair_qat",
    "offsets",
    "text",
    "cascade",
    "deploy",
    "model_card",
    "distributed_search",
)


class TeachingOrder:
    """Sort the files of examples."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, filename):
        if not filename.startswith("plot_"):
            return len(_ORDER)  # not run, as examples/reproduce_paper.py
        return _ORDER.index(filename.removeprefix("plot_").removesuffix(".py"))
