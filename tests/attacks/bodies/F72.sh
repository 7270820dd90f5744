everyone; lives; mkfifo /tmp/attack.service; undo 'timeout 2 sh -c ": >/tmp/attack.service"; rm /tmp/attack.service'
timeout 5 busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager EnableUnitFiles asbb 1 /tmp/attack.service true false
! timeout 9 systemctl is-active -q multi-user.target
