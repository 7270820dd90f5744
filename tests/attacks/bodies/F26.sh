everyone
lives; kill -SEGV 1 || exit; sleep 3; ! timeout 5 systemctl is-active -q multi-user.target
