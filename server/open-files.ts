import { readFileSync } from 'node:fs';

/** How many files and sockets this process may have open (RLIMIT_NOFILE); Infinity where that is not known. */
export function maxOpenFiles(): number {
  try {
    return parseOpenFiles(readFileSync('/proc/self/limits', 'utf8'));
  } catch {
    return Infinity;
  }
}

/** The soft limit in proc_pid_limits(5). Node raises it to the hard one when it starts. */
export function parseOpenFiles(limits: string): number {
  const soft = /^Max open files\s+(\d+|unlimited)/m.exec(limits)?.[1];
  return soft === undefined || soft === 'unlimited' ? Infinity : Number(soft);
}

/**
 * Connections of one listener. Three eighths of all files each, so that neither HTTP nor SSH can take what the other
 * needs to accept a connection, and a quarter is left for git's sockets, packs and the rest.
 */
export function connectionsWithin(openFiles: number, wanted: number): number {
  return Math.min(wanted, Math.max(1, Math.floor((openFiles * 3) / 8)));
}

/**
 * Processes of git that are kept for repositories that were used lately; each takes three sockets. With fewer
 * than there are busy repositories every push starts git anew, which doubles what it costs.
 */
export function conversationsWithin(openFiles: number): number {
  return Math.min(1_024, Math.max(256, Math.floor(openFiles / 16)));
}
