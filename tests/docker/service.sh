# deploy/duragate.service under a real systemd, beside Debian's PostgreSQL. Sourced by
# tests/docker/run; needs the image duragate.

server=duragate-test-server

inside() { docker exec -i $server bash -euo pipefail -c "$1"; }

service_boot() {
    docker build -q -t duragate-test-server -f "$root/tests/docker/service.dockerfile" "$root" \
        >"$work/service-build.log" 2>&1 || { tail -n 20 "$work/service-build.log"; fail "the build"; }
    # systemd's needs; in all other respects the container is a machine of its own
    docker run -d --name $server --cap-add=ALL --cap-drop=SYS_RESOURCE --cgroupns=private \
        --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --security-opt systempaths=unconfined --sysctl net.ipv6.conf.all.disable_ipv6=0 \
        --tmpfs /run --tmpfs /tmp -e LIMIT="$(ulimit -Hn)" duragate-test-server >/dev/null
    local waited=0
    until inside 'systemctl is-active --quiet postgresql@15-main' 2>/dev/null; do
        waited=$((waited + 1))
        [ "$waited" -le 60 ] || { docker logs $server; fail "systemd or PostgreSQL does not start"; }
        sleep 0.5
    done
}

# The steps of the unit's header, with certificates for the example configuration.
service_install() {
    inside '
        useradd --system --home-dir /var/lib/duragate --shell /usr/sbin/nologin duragate
        install -D -m 0640 -g duragate /usr/src/duragate.yaml /etc/duragate/duragate.yaml
        (umask 027 && printf "k1:%s\n" "$(openssl rand -base64 32)" >/etc/duragate/master.key &&
            chgrp duragate /etc/duragate/master.key)
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj /CN=gateway.example.com -addext subjectAltName=DNS:gateway.example.com \
            -keyout /etc/duragate/server.key -out /etc/duragate/server.pem 2>/dev/null
        chgrp duragate /etc/duragate/server.key
        chmod 640 /etc/duragate/server.key
        runuser -u postgres -- createuser duragate
        runuser -u postgres -- createdb --owner duragate duragate
        install -m 0644 /usr/src/duragate.service /etc/systemd/system/
        systemctl daemon-reload' || fail "installing the service"
}

service_ready() { # SECONDS: how long it may take
    local limit=$((SECONDS + $1))
    until inside 'duragate healthcheck --url http://127.0.0.1:8080' >"$work/ready.log" 2>&1; do
        if [ "$SECONDS" -ge "$limit" ]; then
            inside 'journalctl --no-pager -u duragate | tail -n 20'
            fail "the service is not ready after $1 s: $(cat "$work/ready.log")"
        fi
        sleep 0.2
    done
}

# The whole line under the unit's restrictions; what was acknowledged is read after kill -9.
service_use() {
    inside '
        create_key() { runuser -u duragate -- duragate admin create-key \
            --config /etc/duragate/duragate.yaml "$@" | tail -n 1; }
        export DURAGATE_API_KEY=$(create_key --role admin operator) DURAGATE_TENANT=acme
        duragate tenant create acme >/dev/null
        duragate device create dev1 >/dev/null
        export DURAGATE_DEVICE=dev1 DURAGATE_DEVICE_KEY=$(
            duragate credential create dev1 --kind key --name main --json | grep -oP "\"key\": ?\"\K[^\"]+")
        duragate device simulate --count 20 --interval 10ms >/dev/null' || fail "publishing"
    inside 'kill -9 "$(systemctl show -P MainPID duragate)"'
    service_ready 10
    local count
    count=$(inside '
        reader=$(runuser -u duragate -- duragate admin create-key --replace \
            --config /etc/duragate/duragate.yaml --role consumer --tenant acme reader | tail -n 1)
        DURAGATE_KAFKA_USER=reader DURAGATE_KAFKA_PASSWORD=${reader#*.} DURAGATE_TENANT=acme \
            duragate tail --from beginning --no-follow --device dev1 --json' |
        grep -c duragate.telemetry) || true
    [ "$count" = 20 ] || fail "$count events of 20 after kill -9"
    ok "systemd: 20 events acknowledged, kill -9, started again, 20 read"
}

check_service() {
    service_boot
    service_install
    inside 'systemctl enable --now --quiet duragate' ||
        { inside 'journalctl --no-pager -u duragate'; fail "the service does not start"; }
    # Type=notify: systemctl start has waited for READY=1, which does not wait for PostgreSQL.
    service_ready 5
    inside '
        pid=$(systemctl show -P MainPID duragate)
        grep -Eq "^Uid:\s+$(id -u duragate)\s" /proc/$pid/status
        grep -Eq "^CapEff:\s+0+$" /proc/$pid/status
        [ "$(stat -c "%U %a" /var/lib/duragate)" = "duragate 700" ]' || fail "not confined"
    ok "systemd: ready by notification, own user, no capabilities"
    inside '
        pid=$(systemctl show -P MainPID duragate)
        sed -i "s/#log_level: info/log_level: debug/" /etc/duragate/duragate.yaml
        systemctl reload duragate
        sleep 1
        [ "$(systemctl show -P MainPID duragate)" = "$pid" ]
        [[ $(journalctl -u duragate) == *event=reload.done* ]]' || fail "systemctl reload"
    ok "systemd: reload keeps the process"
    service_use
    inside 'systemctl stop duragate
        [ "$(systemctl show -P Result duragate) $(systemctl show -P ExecMainStatus duragate)" = "success 0" ]
        [[ $(journalctl -u duragate) != *"timed out"* ]]' || fail "systemctl stop"
    ok "systemd: stop ends with success"
    docker rm -f $server >/dev/null
}
