"""A study of data and a network of your own: rows as in COMPAS, here Adult with sex as the group.

    python examples/reproduce_paper.py --own examples/paper/own_adult.py:Income --seeds 3 --out mine

For COMPAS itself ``load`` would read the file and return its columns, "two_year_recid" and "race".
"""

from torch import nn

from paper import OwnTask
from skqfair.datasets import load_adult
from skqfair.networks import make_classifier

COLUMNS = ["age", "workclass", "education-num", "occupation", "hours-per-week", "capital-gain"]


class Rows(nn.Module):
    """A small network; its number of features is that of the encoded columns."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.hidden, self.output = nn.Linear(n_features, 24), nn.Linear(24, n_classes)

    def forward(self, x):
        return self.output(self.hidden(x).tanh())


class Income(OwnTask):
    """Income by a few columns, sex as the group."""

    name = "income"
    description = "Adult, six columns, income as target, sex as group"
    epochs, finetune_epochs = 3, 1

    def load(self, seed):
        """Return the columns, the labels and the groups."""
        adult = load_adult()
        return adult.data[COLUMNS], adult.target, adult.sensitive_features["sex"]

    def make_net(self):
        """Return the network, trained by Adam."""
        return make_classifier(Rows, max_epochs=self.epochs, lr=0.005)
