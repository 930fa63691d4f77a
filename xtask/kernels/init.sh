#!/bin/busybox sh
# The first process of the virtual machine: records small programs in the attach modes that the kernel command line
# names (`modes=perf,multi`), and sends what came of it as a tar archive through the second serial line.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mkdir /tmp/out
cd /tmp/out

# run NAME COMMAND...: what it prints, and its exit status.
run() {
    name=$1
    shift
    "$@" >"$name.stdout" 2>"$name.stderr"
    echo $? >"$name.status"
}

run doctor memtrace doctor
modes=$(sed 's/.*modes=\([a-z,]*\).*/\1/; s/,/ /g' /proc/cmdline)
for mode in $modes; do
    for program in leak frames; do
        run "$program-$mode" memtrace record --quiet --sample-interval 1 --attach-mode "$mode" \
            --output "$program-$mode.json" -- "/bin/$program" $(cat "/$program.arguments")
    done
done

stty -F /dev/ttyS1 raw
tar -c -f /dev/ttyS1 .
poweroff -f
