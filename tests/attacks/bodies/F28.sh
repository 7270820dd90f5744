everyone
lives; $poke signal 1 6 || exit; sleep 3; ! timeout 5 systemctl is-active -q multi-user.target
