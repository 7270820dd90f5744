evil /var; ran "$(timeout 9 systemd-run -q --pipe --wait -p ExecPaths=/var -p NoExecPaths=/run $evil hello)"
