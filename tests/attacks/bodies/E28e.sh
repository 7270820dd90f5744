printf 'echo evil program ran\n' >script; ran "$(sh -c '. ./script')$(sh <script)$(sh /dev/stdin <script)$(ENV=$PWD/script sh -i -c : 2>/dev/null)"
