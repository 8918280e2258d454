import { asQuorateError, type QuorateError } from '../contract/errors.js';
import type { ReplicaState } from '../contract/replica.js';
import type { OpenRepositories } from './open-repositories.js';
import { readState } from './state-file.js';
import type { Store } from './store.js';

/** What lies in a store of a repository. */
export interface FoundCopy {
  readonly state: ReplicaState;
  /** Nothing has filled it since it was begun: it is no copy yet. */
  readonly begun: boolean;
}

/** As for `Replica.state`. */
export interface StateOptions {
  readonly unread?: boolean;
}

/**
 * Undefined when there is nothing of the repository. Applies nothing, and says of a damaged copy that it is frozen.
 * `unread`: also of one that cannot be read, as `Replica.state`.
 */
export async function copyState(
  open: OpenRepositories,
  store: Store,
  { repositoryId, unread = false }: StateOptions & { readonly repositoryId: string },
): Promise<FoundCopy | undefined> {
  const directory = store.repositoryDirectory(repositoryId);
  try {
    return await open.with(
      repositoryId,
      async ({ generation, digest, begun, contradiction: frozen }) => ({
        state: { generation, digest, ...(frozen === undefined ? {} : { frozen }) },
        begun: begun && frozen === undefined,
      }),
    );
  } catch (error) {
    const { code, message, details } = asQuorateError(error);
    // Nobody is to count on one that goes.
    if (code === 'not-found')
      return open.retires(repositoryId) ? undefined : withoutHead(directory);
    if (code !== 'data-corrupt' && code !== 'storage-failure') throw error;
    // What contradicts the coordinator alone was read.
    if (unread && details['sound'] !== true) return unreadCopy(directory, { code, message });
    if (code !== 'data-corrupt') throw error;
    const known = await readState(directory).catch((failure: unknown) => {
      // What cannot be read now may be ahead of the head, and must not be taken for less.
      if (asQuorateError(failure).code === 'storage-failure') throw failure;
      return { generation: 0, digest: '' };
    });
    const { generation, digest } = known;
    return { state: { generation, digest, frozen: message }, begun: false };
  }
}

/**
 * What there is to be filled, also one that was only begun. `unavailable` while it is on its way out: to who asks what
 * counts there is nothing then, but it may have readers, and stay after all.
 */
export async function copyToFill(
  open: OpenRepositories,
  store: Store,
  repositoryId: string,
): Promise<ReplicaState | undefined> {
  open.refuseRetiring(repositoryId);
  return (await copyState(open, store, { repositoryId }))?.state;
}

/** What was being applied was committed, and would have been applied by now, could it be read. */
async function unreadCopy(
  directory: string,
  { code, message }: Pick<QuorateError, 'code' | 'message'>,
): Promise<FoundCopy> {
  const { begun = false, applying, ...marker } = await readState(directory);
  const { generation, digest } = applying?.entries.at(-1) ?? marker;
  const frozen = code === 'data-corrupt' ? { frozen: message } : {};
  return { state: { generation, digest, ...frozen, unread: message }, begun };
}

/** By an older copy of the coordinator there may be no head for what is here. Refs were compared with it when it was opened. */
async function withoutHead(directory: string): Promise<FoundCopy | undefined> {
  try {
    const { generation, digest, begun = false } = await readState(directory);
    return { state: { generation, digest }, begun };
  } catch (error) {
    if (asQuorateError(error).code === 'not-found') return undefined;
    throw error;
  }
}
