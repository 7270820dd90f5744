for d in /efi /boot; do ls $d >/dev/null 2>&1; if grep -q " $d .* vfat " /proc/self/mountinfo; then undo "rm -f $d/evil"; echo evil >$d/evil && sync -f $d/evil && exit 0; fi; done; false
