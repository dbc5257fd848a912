#pragma once
// The subcommands of paramill. Each is a thin main: it parses its arguments (argv[0] is the subcommand's
// name), makes the parts, runs them, takes them down, and returns the process's exit code. A failure is one
// line on standard error: "paramill NAME: what, where, what to do".
#include "core/status.h"

#include <stdatomic.h>

int pm_cli_train(int argc, char **argv); // a whole job: embedded, or one rank under mpirun
int pm_cli_up(int argc, char **argv);    // a whole job: one supervised process a role
int pm_cli_role(int argc, char **argv);  // one role: coordinator, server, worker, checkpoint
int pm_cli_status(int argc, char **argv);
int pm_cli_plan(int argc, char **argv);
int pm_cli_snapshot(int argc, char **argv);
int pm_cli_router(int argc, char **argv);
int pm_cli_infer(int argc, char **argv);
int pm_cli_serve(int argc, char **argv);
int pm_cli_query(int argc, char **argv);
int pm_cli_bench(int argc, char **argv);
int pm_cli_conformance(int argc, char **argv);
int pm_cli_gradient(int argc, char **argv);
int pm_cli_convert(int argc, char **argv);

// Set by SIGINT and SIGTERM once pm_cli_catch_signals was called; what runs watches it and ends in order.
extern atomic_bool pm_cli_stop;
void pm_cli_catch_signals(void);

// Prints "paramill NAME: message" on standard error and returns the exit code for the status: 0, 2
// (PM_INVALID: the user's input) or 1.
int pm_cli_finish(const char *name, pm_status status);
