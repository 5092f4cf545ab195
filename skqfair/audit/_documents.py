"""What an audit is handed over as: pages, Markdown, JSON, a model card, a picture."""

from skqfair.audit._card import fill_card
from skqfair.audit._html import as_html
from skqfair.audit._json import dump, load
from skqfair.audit._markdown import as_markdown
from skqfair.audit._plot import plot_audit
from skqfair.audit._write import write_text
from skqfair.metrics import ModelComparison

__all__ = ["Documents"]


class Documents:
    """The methods of an audit that show, write and read it."""

    def plot(self, axes=None):
        """Draw accuracy by group, and its change by group, with intervals.

        Of a search over ``weight_bits``, accuracy and FVO against bits are drawn below, and size where
        it is known; where the search varied more, e.g. a mitigation, a curve for each of its values.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, optional
            Where to draw, as many as there are panels; None makes a figure.

        Returns
        -------
        ndarray of matplotlib Axes
            Accuracy, change if there is a compressed model, and the panels of a search.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        return plot_audit(self, axes)

    def to_html(self, path=None):
        """Write the audit as one self-contained page.

        Parameters
        ----------
        path : path, optional
            Where to; written whole or not at all. None returns the text.

        Returns
        -------
        path or str
            The path, or the text.
        """
        return write_text(as_html(self), path)

    def _repr_html_(self):
        return as_html(self, page=False)

    def to_markdown(self, path=None):
        """Write verdicts and tables as Markdown.

        Parameters
        ----------
        path : path, optional
            Where to; None returns the text.

        Returns
        -------
        path or str
            The path, or the text.
        """
        return write_text(as_markdown(self), path)

    def to_json(self, path=None):
        """Write everything as JSON, to be read by :meth:`from_json`.

        Parameters
        ----------
        path : path, optional
            Where to; None returns the text.

        Returns
        -------
        path or str
            The path, or the text.
        """
        tables = [self.models, self.groups, self.changes, self.detectable, self.exemplars]
        names = ModelComparison._fields
        return write_text(dump(dict(zip(names, tables, strict=True)), self.context), path)

    @classmethod
    def from_json(cls, source):
        """Read what :meth:`to_json` wrote.

        Parameters
        ----------
        source : path or str
            A path, or the text itself.

        Returns
        -------
        CompressionAudit
            With equal tables and verdicts.

        Raises
        ------
        ValueError
            For another format.
        """
        tables, context = load(source)
        return cls(ModelComparison(**tables), context)

    def to_model_card(self, card=None):
        """Add the audit to a model card of skops.

        Parameters
        ----------
        card : skops.card.Card, default=None
            The card to fill; None makes one.

        Returns
        -------
        skops.card.Card
            With a section "Audit of compression".

        Raises
        ------
        ImportError
            If skops is not installed.
        """
        return fill_card(self, card)
