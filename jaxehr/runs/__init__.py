"""Runs: training into a folder, loading it, drawing patients from it."""

from jaxehr.runs.folder import load_run as load_run
from jaxehr.runs.folder import save_run as save_run
from jaxehr.runs.model import Run as Run
from jaxehr.runs.model import make as make
from jaxehr.runs.sampling import sample_run as sample_run
from jaxehr.runs.training import describe as describe
from jaxehr.runs.training import train_run as train_run
