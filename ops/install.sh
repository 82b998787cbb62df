#!/bin/sh
# install.sh PYTHON VENV EXTRA: an editable install of this checkout with one extra, in a virtual environment of its own.
# Uses uv, installed inside the environment, because it is several times faster; falls back to pip where uv cannot work.
set -eu
python=$1 venv=$2 extra=$3

if [ -z "$python" ]; then
    echo "Headrace needs Python 3.11 or 3.12, and none of python3.11, python3.12, python3, python runs as one." >&2
    echo "Install one, or name it: make $extra PYTHON=/path/to/python3.12" >&2
    exit 2
fi
if ! wanted=$("$python" -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13), sys.version; print("%d.%d" % sys.version_info[:2])'); then
    echo "Headrace needs Python 3.11 or 3.12; '$python' is not one. Name another: make PYTHON=/path/to/python3.12" >&2
    exit 2
fi

present=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
if [ "$present" != "$wanted" ]; then
    echo "creating $venv with Python $wanted"
    "$python" -m venv --clear "$venv"
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
echo "installing headrace[$extra] into $venv (about 400 MB of wheels the first time)"
if [ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet uv; then
    "$venv/bin/uv" pip install --python "$venv/bin/python" --compile-bytecode --editable ".[$extra]" && exit 0
    echo "uv could not install; trying pip" >&2
fi
"$venv/bin/python" -m pip install --editable ".[$extra]"
