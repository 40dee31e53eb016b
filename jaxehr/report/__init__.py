"""One offline HTML page and one JSON file on how synthetic patients compare."""

from jaxehr.report.html import write_report as write_report
