"""The report and the cards: sections, figures, pages."""
