/** Longer lines are no progress. */
const MAX_LINE = 512;
/** `Resolving deltas:  42% (21/50)`: how git's progress.c writes. Shown to people, never acted upon. */
const PROGRESS = /^[A-Za-z ]+: +\d{1,3}% \(\d+\/\d+\)/;

/**
 * Lets git's progress through to the pusher, a line (ending in CR or LF) at a time. Complaints stay behind: they come
 * with the error, and may name paths of this machine.
 */
export function progressLines(show: (text: Uint8Array) => void): (stderr: Uint8Array) => void {
  let pending = '';
  return (stderr) => {
    pending += Buffer.from(stderr.buffer, stderr.byteOffset, stderr.byteLength).toString('latin1');
    for (;;) {
      const end = pending.search(/[\r\n]/);
      if (end < 0) break;
      const line = pending.slice(0, end + 1);
      pending = pending.slice(end + 1);
      if (PROGRESS.test(line)) show(Buffer.from(line, 'latin1'));
    }
    if (pending.length > MAX_LINE) pending = '';
  };
}
