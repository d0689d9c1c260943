# A docker daemon of the test's own, and base images where no registry is reachable. Needs $root
# and $work, a directory on a local file system. Sourced by tests/docker/run.

daemon_pid= own_bridge=no images_made=
firewall_policy= forwarding=

daemon_start() {
    if docker info >/dev/null 2>&1; then
        echo "using the docker daemon that runs"
        return
    fi
    export DOCKER_HOST=unix://$work/docker.sock
    if docker info >/dev/null 2>&1; then
        echo "tests/docker: another run uses $work" >&2
        exit 69
    fi
    [ -e /sys/class/net/docker0 ] || own_bridge=yes
    firewall_policy=$(iptables -S FORWARD | awk '$1 == "-P" {print $3}')
    forwarding=$(cat /proc/sys/net/ipv4/ip_forward)
    dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" \
        --pidfile "$work/dockerd.pid" >"$work/dockerd.log" 2>&1 &
    daemon_pid=$!
    local waited=0
    until docker info >/dev/null 2>&1; do
        waited=$((waited + 1))
        if [ "$waited" -gt 300 ] || ! kill -0 "$daemon_pid" 2>/dev/null; then
            tail -n 20 "$work/dockerd.log" >&2
            echo "tests/docker: dockerd does not start" >&2
            exit 69
        fi
        sleep 0.1
    done
    echo "started dockerd ($(docker info --format '{{.Driver}}'))"
}

# Ends the daemon and takes back what it leaves in the kernel: bridge, firewall rules, forwarding.
daemon_stop() {
    if [ -z "$daemon_pid" ]; then
        [ -z "$images_made" ] || docker image rm $images_made >/dev/null 2>&1 || true
        return 0
    fi
    kill "$daemon_pid" 2>/dev/null || true
    wait "$daemon_pid" 2>/dev/null || true
    awk -v under="$work/" 'index($2, under) == 1 {print $2}' /proc/mounts | sort -r |
        while read -r mount; do umount "$mount" || true; done
    [ "$own_bridge" = yes ] || return 0
    ip link delete docker0 2>/dev/null || true
    local table rule
    for table in nat filter; do
        iptables -t $table -S | grep -E '^-A .*(docker0|DOCKER)' | while read -r rule; do
            eval "iptables -t $table ${rule/#-A/-D}" || true
        done
        iptables -t $table -S | awk '$1 == "-N" && $2 ~ /^DOCKER/ {print $2}' |
            while read -r rule; do iptables -t $table -X "$rule" || true; done
    done
    iptables -P FORWARD "$firewall_policy"
    echo "$forwarding" >/proc/sys/net/ipv4/ip_forward
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# Stand-ins under the names the files use, from the package mirror that this machine's apt knows.
# An image of that name that is there already is used as it is.
make_base_images() {
    local suite=bookworm image mirror file
    for image in debian:bookworm-slim debian:bookworm; do
        if has_image $image; then continue; fi
        if [ ! -d "$work/base/usr" ]; then
            echo "making a stand-in for $image with debootstrap ..."
            mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 2>/dev/null |
                awk -v suite=$suite '$2 == suite {print $1; exit}')
            [ -n "$mirror" ] || { echo "this machine's apt knows no $suite" >&2; exit 69; }
            debootstrap --variant=minbase $suite "$work/base" "$mirror" >"$work/debootstrap.log" 2>&1 ||
                { tail -n 20 "$work/debootstrap.log" >&2; exit 69; }
            # The same sources as this machine, so that security updates are had too.
            rm -f "$work/base/etc/apt/sources.list"
            for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
                if [ -f "$file" ]; then cp "$file" "$work/base$file"; fi
            done
        fi
        tar -C "$work/base" -c . | docker import - $image >/dev/null
        images_made="$images_made $image"
    done
    image=postgres:15-bookworm
    if has_image $image; then return; fi
    echo "making a stand-in for $image ..."
    docker build -t $image -f "$root/tests/docker/postgres.dockerfile" "$root/tests/docker" \
        >"$work/postgres.log" 2>&1 || { tail -n 20 "$work/postgres.log" >&2; exit 69; }
    images_made="$images_made $image"
}
