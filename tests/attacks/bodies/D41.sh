[ "$(uname -r | cut -d . -f 2)" -ge 9 ] || skip 'no hook sees swapon before Linux 6.9; see D42'
dd if=/dev/zero of=swap bs=1M count=4 2>/dev/null; chmod 600 swap; mkswap swap >/dev/null; $poke swapon "$PWD/swap"
