import ast
import subprocess
import sys

import pytest

HEAVY = ("pandas", "scipy", "matplotlib", "jinja2", "torch", "sklearn", "kedro", "mlflow", "kafal_pipeline.comparison")


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("kafal_pipeline.evaluation", []),
        ("kafal_pipeline.comparison", ["pandas", "scipy", "matplotlib", "jinja2", "kafal_pipeline.comparison"]),
        ("kafal_pipeline.pipelines.compare.pipeline", ["kedro"]),
    ],
)
def test_naming_the_functions_imports_nothing_heavy_but_what_they_always_need(module, needed):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) <= set(needed)
