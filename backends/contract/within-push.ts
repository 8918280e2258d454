import { createHash } from 'node:crypto';

/*
 * A hook that judges a push must not push to the same repository: it would wait for locks that the push holds while the
 * push waits for it. So hooks are given a mark that their git hands on (a header over HTTP, a variable over SSH), and a
 * push that bears the mark of its own repository is refused at once. Who leaves the mark out gains nothing: the hook's
 * time is bounded. Who makes one up is refused a push of their own.
 */

/** Over HTTP. */
export const withinPushHeader = 'Quorate-Within-Push';
/** Of a hook's environment, and over SSH. */
export const withinPushVariable = 'QUORATE_WITHIN_PUSH';

/** What hooks of a repository are marked with: says nothing of the repository to other servers. */
export function withinPushMark(repositoryId: string): string {
  return createHash('sha256').update(`within ${repositoryId}`).digest('hex').slice(0, 32);
}
