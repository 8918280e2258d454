import type { GitRunnerLimits } from '../backends/git/runner.js';
import type { Config } from './config.js';
import type { AdmissionLimits } from './core/admission.js';
import { defaultPackMemoryBytes } from './core/pack-memory.js';
import { defaultHttpLimits } from './http/http-limits.js';
import { connectionsWithin, conversationsWithin, maxOpenFiles } from './open-files.js';
import { defaultSshLimits } from './ssh/ssh-limits.js';

/* What the settings under `limits.` are in the parts that keep them. */

/**
 * Places for all whom `admission.ts` lets in: fetches and pushes of HTTP and of SSH, each with one stream at a time. So
 * none of the four kinds takes a place of another. The rest is for what the server does by itself (imports).
 */
export function gitLimits(
  processes: number,
): Pick<GitRunnerLimits, 'runs' | 'streams' | 'queued' | 'conversations'> {
  return {
    runs: 2 * processes,
    streams: 4 * processes + 16,
    queued: 8_192,
    conversations: conversationsWithin(maxOpenFiles()),
  };
}

/** Of HTTP, and of SSH; the admin API has the rates among them. */
export function admissionLimits(config: Config): AdmissionLimits {
  return {
    requestsPerPrincipal: config['limits.requestsPerPrincipal'],
    requestsPerAddress: config['limits.requestsPerAddress'],
    requestsPerRepository: config['limits.requestsPerRepository'],
    ratePerPrincipal: config['limits.ratePerPrincipal'],
    ratePerAddress: config['limits.ratePerAddress'],
    ratePerRepository: config['limits.ratePerRepository'],
    gitProcesses: config['limits.gitProcesses'],
    packMemoryBytes: config['limits.packMemory'] || defaultPackMemoryBytes(),
    queueLength: config['limits.queueLength'],
    queueTimeMs: config['limits.queueTime'],
  };
}

export function httpLimits(config: Config): typeof defaultHttpLimits {
  return {
    ...defaultHttpLimits,
    headersTimeoutMs: config['limits.handshakeTime'],
    idleTimeoutMs: config['limits.idleTime'],
    requestTimeoutMs: config['limits.requestTime'],
    maxFetchBodyBytes: config['limits.fetchBody'],
    maxPushBodyBytes: config['limits.pushBody'],
    maxConnections: connectionsWithin(maxOpenFiles(), config['limits.connections']),
    maxConnectionsPerAddress: config['limits.connectionsPerAddress'],
    maxAuthenticationFailuresPerMinute: config['limits.failedSignIns'],
  };
}

export function sshLimits(config: Config): typeof defaultSshLimits {
  return {
    ...defaultSshLimits,
    loginGraceMs: config['limits.handshakeTime'],
    idleTimeoutMs: config['limits.idleTime'],
    requestTimeoutMs: config['limits.requestTime'],
    maxConnections: connectionsWithin(maxOpenFiles(), config['limits.connections']),
    maxConnectionsPerAddress: config['limits.connectionsPerAddress'],
    maxConnectionsPerPrincipal: config['limits.requestsPerPrincipal'],
  };
}
