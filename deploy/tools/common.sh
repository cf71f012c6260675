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
    # Without package lists, or with old ones, the first attempt fails quickly.
    apt install -y --no-install-recommends "$@" || { apt update && apt install -y --no-install-recommends "$@"; }
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=30 \
        -o Acquire::https::Timeout=30 "$@" >/dev/null 2>&1
}

# Runs the rest of the calling script once at a time, so that parallel test binaries may all call it.
only_one() {
    if has flock; then
        exec 9>"$1"
        flock 9
    fi
}
