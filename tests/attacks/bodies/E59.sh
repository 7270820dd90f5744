cp $here/evil.img . ; ran "$(timeout 9 systemd-run -q --pipe --wait -p "RootImage=$PWD/evil.img" /program hello)"
