everyone; lives; $poke sigio 1 11 || exit; sleep 2; ! timeout 10 systemctl is-active -q multi-user.target
