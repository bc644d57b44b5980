# Looks for what a build needs, and says how to get what is missing. Called by `make` before anything is built.
missing=0

need() { # name, how to install it
    echo "missing: $1"
    echo "         $2"
    missing=1
}

if ! command -v "$CARGO" >/dev/null 2>&1; then
    need 'cargo (Rust 1.88 or later)' 'install Rust with rustup, or the cargo package of a recent distribution'
else
    minor=$("$CARGO" --version | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p')
    if [ -n "$minor" ] && [ "$minor" -lt 88 ]; then
        need "cargo 1.88 or later (found 1.$minor)" 'rustup update stable'
    fi
fi

if ! command -v "$CC" >/dev/null 2>&1; then
    need "a C compiler ($CC)" 'apt-get install gcc libc6-dev   (or set CC)'
fi

if ! command -v "$PYTHON" >/dev/null 2>&1; then
    need "Python 3.9 or later ($PYTHON)" 'apt-get install python3 python3-venv   (or set PYTHON)'
elif ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then
    need "Python 3.9 or later (found $("$PYTHON" --version 2>&1))" 'install a newer one and set PYTHON'
elif [ ! -x "$VENV/bin/pip" ] && ! "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null; then
    need "the venv module of $PYTHON" 'apt-get install python3-venv'
fi

exit "$missing"
