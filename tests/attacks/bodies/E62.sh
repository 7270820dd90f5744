$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp $here/evil.so . ; chmod 755 . ; undo 'systemctl unset-environment LD_PRELOAD'; systemctl set-environment "LD_PRELOAD=$PWD/evil.so"
case $(timeout 9 systemd-run -q --pipe --wait /usr/bin/true) in *'evil library'*) ;; *) false ;; esac
