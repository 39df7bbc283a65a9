#!/bin/bash
# A SLURM of two nodes on this one machine, as root: slurm.sh start FOLDER, slurm.sh stop FOLDER
# Needs: apt-get install --no-install-recommends slurm-wlm munge slurmdbd mariadb-server-core mariadb-client-core
# Each node is declared with 4 CPUs and 40 GB, whatever the machine has. Everything listens on loopback.
# Its time limits are longer than SLURM's own, for a machine with other work.
set -u
S=$(mkdir -p "$2" && cd "$2" && pwd); H=$(hostname -s)
export SLURM_CONF=$S/slurm.conf
if [ "$1" = stop ]; then
  scancel -f -u root; sleep 1
  for f in "$S"/run/slurmd-node{1,2}.pid "$S"/run/slurmctld.pid "$S"/run/slurmdbd.pid "$S"/run/mysql.pid "$S"/munge/munged.pid; do
    [ -s "$f" ] && kill "$(cat "$f")"
    sleep 0.7
  done
  exit 0
fi
mkdir -p "$S"/{run,log,state,munge,mysql,spool-node1,spool-node2}
cat >"$SLURM_CONF" <<C
ClusterName=trial
SlurmctldHost=$H(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$S/munge/munge.socket
CredType=cred/munge
SlurmctldPort=27817
SlurmctldPidFile=$S/run/slurmctld.pid
SlurmctldLogFile=$S/log/slurmctld.log
SlurmdPidFile=$S/run/slurmd-%n.pid
SlurmdLogFile=$S/log/slurmd-%n.log
SlurmdSpoolDir=$S/spool-%n
StateSaveLocation=$S/state
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
SwitchType=switch/none
MessageTimeout=60
BatchStartTimeout=120
KillWait=120
UnkillableStepTimeout=300
MpiDefault=none
ReturnToService=2
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=27819
AccountingStoragePass=$S/munge/munge.socket
NodeName=node1 NodeHostname=$H NodeAddr=127.0.0.1 Port=27821 CPUs=4 RealMemory=40000 State=UNKNOWN
NodeName=node2 NodeHostname=$H NodeAddr=127.0.0.1 Port=27822 CPUs=4 RealMemory=40000 State=UNKNOWN
PartitionName=main Nodes=node[1-2] Default=YES MaxTime=INFINITE State=UP
C
cat >"$S/slurmdbd.conf" <<C
AuthType=auth/munge
AuthInfo=$S/munge/munge.socket
DbdHost=$H
DbdAddr=127.0.0.1
DbdPort=27819
SlurmUser=root
PidFile=$S/run/slurmdbd.pid
LogFile=$S/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=27806
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
C
chmod 600 "$S/slurmdbd.conf"; chmod 755 "$S/munge"
[ -s "$S/munge/key" ] || dd if=/dev/urandom of="$S/munge/key" bs=1024 count=1 status=none
chmod 400 "$S/munge/key"; chown -R munge "$S/munge"
wait_for() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return 0; sleep 0.5; done; echo "gave up: $*" >&2; exit 1; }
runuser -u munge -- munged --force --socket="$S/munge/munge.socket" --key-file="$S/munge/key" \
  --log-file="$S/munge/munged.log" --pid-file="$S/munge/munged.pid" --seed-file="$S/munge/seed" --num-threads=2
wait_for munge -S "$S/munge/munge.socket" -n
[ -d "$S/mysql/mysql" ] || mariadb-install-db --user=root --datadir="$S/mysql" --auth-root-authentication-method=normal >"$S/log/mysql-install.log" 2>&1
mariadbd --no-defaults --user=root --datadir="$S/mysql" --port=27806 --bind-address=127.0.0.1 --socket="$S/run/mysql.sock" \
  --pid-file="$S/run/mysql.pid" --innodb-buffer-pool-size=64M >"$S/log/mysql.log" 2>&1 &
wait_for mariadb --no-defaults -S "$S/run/mysql.sock" -u root -e 'select 1'
for host in localhost 127.0.0.1 "$H"; do
  mariadb --no-defaults -S "$S/run/mysql.sock" -u root -e "create database if not exists slurm_acct; create user if not exists slurm@'$host' identified by 'slurm'; grant all on slurm_acct.* to slurm@'$host'"
done
slurmdbd
wait_for sacctmgr -n list cluster
sacctmgr -n list cluster | grep -q trial || sacctmgr -i add cluster trial >/dev/null
slurmctld -f "$SLURM_CONF" -i
for node in node1 node2; do slurmd -f "$SLURM_CONF" -N $node; done
wait_for scontrol ping
sleep 2
scontrol update nodename=node[1-2] state=resume 2>/dev/null || true
