#pragma once
// Starting under mpirun or srun: MPI gives each process its rank and carries one address; ZeroMQ does the
// rest. Everything here is called from the main thread.
#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct pm_bootstrap pm_bootstrap;

// True when a launcher (Open MPI, or PMIx under Slurm) started this process.
bool pm_bootstrap_present(void);

// MPI_Init. The caller owns *bootstrap.
pm_status pm_bootstrap_open(pm_bootstrap **bootstrap) PM_CHECKED;

// MPI_Finalize: waits for the other ranks.
void pm_bootstrap_close(pm_bootstrap **bootstrap);

int pm_bootstrap_rank(const pm_bootstrap *bootstrap);
int pm_bootstrap_size(const pm_bootstrap *bootstrap);

// True when all ranks are on this machine.
bool pm_bootstrap_one_host(const pm_bootstrap *bootstrap);

// Rank 0's text (NUL-terminated, at most size bytes) to all ranks; every rank calls it.
pm_status pm_bootstrap_share(pm_bootstrap *bootstrap, char *text, size_t size) PM_CHECKED;

// The address at which other machines reach this one: its first IPv4 address that is not loopback; 127.0.0.1
// when all ranks are here.
pm_status pm_bootstrap_address(const pm_bootstrap *bootstrap, char *text, size_t size) PM_CHECKED;
