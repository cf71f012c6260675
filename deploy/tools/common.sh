# Shared by the scripts of this folder; sourced, never run.

say() { printf 'tools: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# Installs Debian packages where that is possible without asking anyone: as root, with apt-get.
debian_install() {
    [ "$(id -u)" = 0 ] && has apt-get || return 1
    say "installing $* with apt-get"
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1; then
        apt-get update -qq >/dev/null 2>&1 || true
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
    fi
}

# Runs the rest of the calling script once at a time, so that parallel test binaries may all call it.
only_one() {
    if has flock; then
        exec 9>"$1"
        flock 9
    fi
}
