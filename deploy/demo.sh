# Shared by deploy/up and deploy/down; needs $root and $var. Sourced, not run.

pg_bin=
for candidate in /usr/lib/postgresql/*/bin; do
    [ -x "$candidate/initdb" ] && pg_bin=$candidate
done

# PostgreSQL refuses to run as root: then everything of its own belongs to the user `postgres`, and
# lives where that user may go.
if [ "$(id -u)" -eq 0 ]; then
    as_pg() { setpriv --reuid=postgres --regid=postgres --init-groups env -C / "$@"; }
    pg_home=$var/postgres
    parent_open() {
        local directory=$root
        while [ "$directory" != / ]; do
            as_pg test -x "$directory" 2>/dev/null || return 1
            directory=$(dirname "$directory")
        done
    }
    parent_open && [ "$var" = "$root/var" ] ||
        pg_home=/var/lib/duragate-demo/$(printf '%s' "$var" | cksum | cut -d' ' -f1)
else
    as_pg() { "$@"; }
    pg_home=$var/postgres
fi
# A socket's path may have 107 bytes at most.
pg_socket=$pg_home
if [ ${#pg_socket} -gt 80 ]; then
    pg_socket=/tmp/duragate-demo-$(id -u)-$(printf '%s' "$var" | cksum | cut -d' ' -f1)
fi

demo_postgres_prepare() {
    [ -n "$pg_bin" ] || fail "PostgreSQL's initdb is not under /usr/lib/postgresql; is the package postgresql installed?"
    if [ "$(id -u)" -eq 0 ]; then
        # The user postgres must pass through var/ (contents stay private, file by file).
        [ "$pg_home" != "$var/postgres" ] || chmod 711 "$var"
        install -d -o root -m 755 "$(dirname "$pg_home")" 2>/dev/null || true
        [ "$pg_home" != "$var/postgres" ] || chmod 711 "$var"
        install -d -o postgres -g postgres -m 700 "$pg_home"
        [ "$pg_socket" = "$pg_home" ] || install -d -o postgres -g postgres -m 700 "$pg_socket"
    else
        install -d -m 700 "$pg_home" "$pg_socket"
    fi
    if [ ! -f "$var/registry.password" ]; then
        # var/ was removed to begin anew; a cluster of the old one, outside it, is put aside.
        if as_pg test -e "$pg_home/data"; then
            ! demo_postgres_running || as_pg "$pg_bin/pg_ctl" -D "$pg_home/data" -m fast -w stop >/dev/null
            as_pg mv "$pg_home/data" "$pg_home/data.replaced.$(date +%s)"
        fi
        openssl rand -hex 24 >"$var/registry.password"
    fi
    if as_pg test ! -f "$pg_home/data/PG_VERSION"; then
        as_pg rm -rf "$pg_home/data.new"
        as_pg "$pg_bin/initdb" -D "$pg_home/data.new" -U postgres -A peer -E UTF8 --locale=C.UTF-8 \
            >"$var/initdb.log" 2>&1 || fail "initdb failed, see $var/initdb.log"
        as_pg tee "$pg_home/data.new/pg_hba.conf" >/dev/null <<HBA
local all postgres peer map=owner
local all all scram-sha-256
HBA
        as_pg tee "$pg_home/data.new/pg_ident.conf" >/dev/null <<IDENT
owner $(as_pg id -un) postgres
IDENT
        as_pg mv "$pg_home/data.new" "$pg_home/data"
    fi
}

# A zombie has a number that pg_ctl takes for a server.
demo_postgres_running() {
    local pid
    pid=$(as_pg head -n 1 "$pg_home/data/postmaster.pid" 2>/dev/null) || return 1
    if grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null; then
        as_pg rm -f "$pg_home/data/postmaster.pid"
        return 1
    fi
    as_pg "$pg_bin/pg_ctl" -D "$pg_home/data" status >/dev/null 2>&1
}

demo_postgres_start() {
    as_pg "$pg_bin/pg_ctl" -D "$pg_home/data" -l "$pg_home/log" -w -t 60 \
        -o "-c listen_addresses='' -c unix_socket_directories='$pg_socket' -c max_connections=50" \
        start >/dev/null 2>&1 9>&- || return 1
    local sql="select 1 from pg_roles where rolname = 'duragate'"
    if [ -z "$(as_pg psql -h "$pg_socket" -U postgres -d postgres -Atqc "$sql")" ]; then
        as_pg psql -h "$pg_socket" -U postgres -d postgres -qAt <<SQL
create role duragate login password '$(cat "$var/registry.password")';
create database duragate owner duragate;
SQL
    fi
}

demo_gateway_running() {
    local pid
    pid=$(cat "$var/duragate.pid" 2>/dev/null) || return 1
    # Not by its executable: a process with keys in its memory shows that to root only.
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = duragate ] && ! demo_is_ending "$pid"
}

# Killed, and not quite gone: SIGKILL is pending (bit 8), or the memory has gone already.
demo_is_ending() { # PID
    local status
    status=$(cat "/proc/$1/status" 2>/dev/null) || return 0
    grep -qE '^(Sig|Shd)Pnd:[[:space:]]*[0-9a-f]*[13579bdf][0-9a-f]{2}$' <<<"$status" ||
        ! grep -q '^VmRSS:' <<<"$status"
}

demo_gateway_stop() {
    local pid waited=0
    demo_gateway_running || return 0
    pid=$(cat "$var/duragate.pid")
    kill -TERM "$pid" 2>/dev/null || return 0 # gone meanwhile
    while kill -0 "$pid" 2>/dev/null; do
        waited=$((waited + 1))
        [ "$waited" -lt 300 ] || { echo "the gateway (pid $pid) does not stop" >&2; return 1; }
        sleep 0.1
    done
}
