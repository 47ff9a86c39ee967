import subprocess
import sys

import pytest

HEAVY = ("pandas", "scipy", "matplotlib", "jinja2", "torch", "sklearn", "kedro", "mlflow")


@pytest.mark.parametrize("module", ["kafal_pipeline.evaluation", "kafal_pipeline.comparison"])
def test_naming_the_functions_imports_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
