# Makes a checkout ready to run: npm packages (Node 24 among them), Redis, PostgreSQL, wrk. Sourced by the
# commands in scripts/, which set `root` to the checkout first. POSIX sh; safe to run twice or at the same time.
# Everything it says goes to stderr.

say() {
  printf 'onewriter: %s\n' "$*" >&2
}

stop_with() {
  say "$*"
  exit 1
}

# --- npm packages ------------------------------------------------------------------------------------

lock_checksum() {
  { sha256sum "$root/package-lock.json" 2>/dev/null || shasum -a 256 "$root/package-lock.json"; } | cut -d ' ' -f 1
}

# The packages belong to package-lock.json as it is now: by the stamp that install_packages leaves, or, where
# npm was run by hand since, because its own record is younger than the lock file.
packages_are_current() {
  modules="$root/node_modules"
  [ -x "$modules/.bin/node" ] && [ -f "$modules/.package-lock.json" ] || return 1
  if [ -f "$modules/.onewriter-lock" ] && ! [ "$modules/.package-lock.json" -nt "$modules/.onewriter-lock" ]; then
    [ "$(cat "$modules/.onewriter-lock")" = "$(lock_checksum)" ]
  else
    ! [ "$root/package-lock.json" -nt "$modules/.package-lock.json" ]
  fi
}

# Runs a function while no other process of this checkout does the same.
alone() {
  mkdir -p "$root/.onewriter" || stop_with "$root/.onewriter cannot be created; make the checkout writable."
  if command -v flock >/dev/null 2>&1; then
    (
      flock 9
      "$@" 9>&- # what it starts must not keep the lock
    ) 9>"$root/.onewriter/install.lock"
  else
    waited=0
    until mkdir "$root/.onewriter/install.lock.d" 2>/dev/null; do
      [ "$waited" -lt 600 ] || stop_with "another installation does not end; if there is none, remove $root/.onewriter/install.lock.d."
      waited=$((waited + 1))
      sleep 1
    done
    ("$@")
    alone_status=$?
    rmdir "$root/.onewriter/install.lock.d"
    return "$alone_status"
  fi
}

run_npm() {
  (cd "$root" && npm_config_update_notifier=false npm "$@" --no-audit --no-fund --loglevel=error) \
    >"$report" 2>&1 </dev/null
}

install_packages() {
  packages_are_current && return 0 # another process was faster
  command -v npm >/dev/null 2>&1 && command -v node >/dev/null 2>&1 ||
    stop_with "Node.js and npm are needed once, to install the packages; install Node.js 18 or newer (Debian: apt-get install nodejs npm, macOS: brew install node)."
  found=$(node -p 'process.versions.node' 2>/dev/null) || found=0
  [ "${found%%.*}" -ge 18 ] ||
    stop_with "npm needs Node.js 18 or newer, but $(command -v node) is $found; install a newer one."
  # npm would empty the directory that a link leads to, which belongs to somebody else.
  [ -L "$root/node_modules" ] && { rm "$root/node_modules" || stop_with "$root/node_modules is a link that cannot be removed."; }
  say "installing the npm packages"
  report="$root/.onewriter/npm.log"
  # Newer npm refuses `ci` where the lock file was written by a registry that does not offer the optional
  # packages of every platform (EUSAGE). `install` leaves those out; versions and checksums stay those of the lock.
  run_npm ci || { grep -q EUSAGE "$report" && run_npm install --no-save; } || {
    sed 20q "$report" >&2
    stop_with "npm could not install the packages; all it said is in $report."
  }
  "$root/node_modules/.bin/node" --version >/dev/null 2>&1 ||
    stop_with "npm brought no working Node 24 (package \"node\"); if ignore-scripts is set for npm, unset it and try again."
  lock_checksum >"$root/node_modules/.onewriter-lock"
}

# From here on `node` is the Node 24 of the packages.
prepare_node() {
  packages_are_current || alone install_packages || exit 1
  PATH="$root/node_modules/.bin:$PATH"
  export PATH
}

# --- system packages ---------------------------------------------------------------------------------

# Installs a Debian package; its services are not started, because nothing here uses them.
install_debian_package() {
  command -v apt-get >/dev/null 2>&1 || return 1
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || return 1
    as_root=sudo
  fi
  mkdir -p "$root/.onewriter"
  report="$root/.onewriter/apt-get.log"
  say "installing the Debian package $1 (apt-get)"
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 update >"$report" 2>&1 </dev/null
  $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=120 \
    install -y --no-install-recommends "$1" >>"$report" 2>&1 </dev/null && return 0
  tail -n 5 "$report" >&2
  return 1
}

redis_is_there() {
  command -v redis-server >/dev/null 2>&1 || command -v valkey-server >/dev/null 2>&1
}

install_redis() {
  redis_is_there || install_debian_package redis-server
}

prepare_redis() {
  redis_is_there && return 0
  alone install_redis && redis_is_there ||
    stop_with "redis-server is needed and could not be installed; install it (Debian: apt-get install redis-server, macOS: brew install redis) or use a container (docker run -p 6379:6379 redis:7, with REDIS_URL=redis://127.0.0.1:6379)."
}

postgres_is_there() {
  command -v postgres >/dev/null 2>&1 && return 0
  for binary in /usr/lib/postgresql/*/bin/postgres; do
    [ -x "$binary" ] && return 0
  done
  return 1
}

install_postgres() {
  postgres_is_there || install_debian_package postgresql
}

# Only tests need it; without it they say so themselves.
prepare_postgres() {
  postgres_is_there && return 0
  alone install_postgres && postgres_is_there ||
    say "PostgreSQL is missing and could not be installed, so tests that need it will fail; install it (Debian: apt-get install postgresql, macOS: brew install postgresql)."
  return 0
}

wrk_is_there() {
  command -v wrk >/dev/null 2>&1
}

install_wrk() {
  wrk_is_there || install_debian_package wrk
}

# The benchmark's load generator; without it the benchmark takes one of its own, and says so.
prepare_wrk() {
  wrk_is_there && return 0
  alone install_wrk && wrk_is_there ||
    say "wrk is missing and could not be installed, so the load comes from a generator that costs more; install it (Debian: apt-get install wrk, macOS: brew install wrk)."
  return 0
}
