"""What did each paper of the field claim, what do our models say to it, and which claims hold?

`asked` reads a published number as a question, `products`, `weights`, `runs` and `operators` answer it, `evidence`
finds the numbers that fits and validation know already, `judge` gives the verdict, claim by claim.
"""

from perfmodel.catalog.papers import load_paper, paper_names
from perfmodel.papers.judge import Judged, Verdict, judge, predicted_numbers

__all__ = ["Judged", "Verdict", "judge", "load_paper", "paper_names", "predicted_numbers"]
