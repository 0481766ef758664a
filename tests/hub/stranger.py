"""Load models from a hub as somebody does who has not this package. `test_push_loading` runs it as a script.

It does what `hf_genmodels/hub/clean_process.py` does with a folder, with the name of a repository, and downloads
the whole repository as well. The environment says where the hub is.
"""

import importlib.util
import json
import sys
from pathlib import Path

from huggingface_hub import snapshot_download


def main(requests_file: str, clean_process: str) -> None:
    """Answer each request in the file beside it."""
    spec = importlib.util.spec_from_file_location("clean_process", clean_process)
    clean = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(clean)
    sys.meta_path.insert(0, clean.PackageBlocker())
    reports = []
    for request in json.loads(Path(requests_file).read_text()):
        report = {"step": "download", "error": None}
        try:
            report["snapshot"] = snapshot_download(request["folder"])
            clean.check_folder(request, report)
        except Exception as error:
            report["error"] = f"{report['step']}: {type(error).__name__}: {error}"
        reports.append(report)
    Path(requests_file).with_name("reports.json").write_text(json.dumps(reports))


if __name__ == "__main__":
    main(*sys.argv[1:])
