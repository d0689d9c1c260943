/*
 * Jobs: one command, or one change of desired state, for many devices, so many in a second.
 *
 * All about a job is in PostgreSQL (schemas/0009_jobs.sql), and nobody owns it: while any job runs,
 * each gateway makes steps. One statement locks the jobs whose rate allows a device or more, does
 * for the next devices of each what the job is for, and notes what came of it. So there is nothing
 * to take over from a gateway that has gone, and a statement without an answer is no question: the
 * next step goes on from where the row says.
 *
 * A job's command is held by nobody; it can be taken when the stream says that it is queued
 * (relay.h), and then a NOTIFY tells whoever has the device, this gateway too. Commands of an
 * aborted job are cancelled as soon as nobody holds them.
 */
#pragma once

#include "gateway/loop/worker.h"

/* Any worker: a job was made or aborted. Without memory it is seen within a second. */
void jobs_soon(struct worker *worker);
