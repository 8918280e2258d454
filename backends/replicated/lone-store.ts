import { z } from 'zod';
import type { Coordinator, KeyValue } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { decodeRepository, encodeRecord, scan } from './records.js';

/** A store, and where it is, for people. */
export interface PlacedStore {
  readonly storeId: string;
  readonly host: string;
  readonly directory: string;
}

const schema = z.object({
  storeId: z.string(),
  host: z.string(),
  directory: z.string(),
  /** The server became a member of a cluster, whose others may come. */
  member: z.literal(true).exactOptional(),
});

/** Repositories that are looked at to find out whose etcd it is. */
const lookedAt = 100;
/** Others that start at the same time; each time one of them was first. */
const maxTries = 5;

export interface LoneStoreOptions {
  /** Of every key in etcd, for messages. */
  readonly prefix: string;
  /** People have said that this server is to be the only one. */
  readonly alone: boolean;
}

/**
 * Says in etcd, for good, that the repositories are kept in this store alone, by a server that is no member of a
 * cluster. Throws `failed-precondition`, and changes nothing, when they are another server's, or a cluster's: it would
 * show repositories that it does not have, and keep what is pushed to it where the other does not have it. So it does
 * when nothing says yet that it is alone, and people have not said so either: a member that was started without the
 * secret of its cluster looks the same, and all others would be refused.
 */
export async function claimForOneStore(
  coordinator: Coordinator,
  own: PlacedStore,
  { prefix, alone }: LoneStoreOptions,
): Promise<void> {
  for (let tries = 0; tries < maxTries; tries += 1) {
    const found = await coordinator.get(keys.loneStore);
    const other = found === undefined ? undefined : decode(found);
    if (other !== undefined && other.storeId !== own.storeId) {
      throw taken(other, remedyOfServer, prefix);
    }
    const { host, directory, member } = other ?? {};
    if (host === own.host && directory === own.directory && member === undefined) return;
    if (other === undefined || member === true) {
      const wasAlone = (await refuseAmongNodes(coordinator, own)) && member === undefined;
      if (!alone && !wasAlone) throw notAsked();
    }
    const { succeeded } = await coordinator.transaction({
      compares: [unchanged(found)],
      success: [{ type: 'put', key: keys.loneStore, value: encodeRecord(own) }],
      failure: [],
    });
    if (succeeded) return;
  }
  throw new QuorateError('unavailable', 'other servers start on this etcd at the same time');
}

/**
 * The store of a server that stood alone becomes that of the first member of a cluster. Any other member is refused
 * while etcd is such a server's: `failed-precondition`. `storeId`: of this member; undefined for one without a store.
 */
export async function joinInsteadOfAlone(
  coordinator: Coordinator,
  storeId: string | undefined,
  { prefix }: Pick<LoneStoreOptions, 'prefix'>,
): Promise<void> {
  const found = await coordinator.get(keys.loneStore);
  if (found === undefined) return;
  const other = decode(found);
  if (other.member === true) return;
  if (other.storeId !== storeId) throw taken(other, remedyOfMember, prefix);
  const value = encodeRecord({ ...other, member: true });
  // Who changed it meanwhile has the same store.
  await coordinator.transaction({
    compares: [unchanged(found)],
    success: [{ type: 'put', key: keys.loneStore, value }],
    failure: [],
  });
}

/** Storage nodes that are all away now have left copies. Whether this server has stood alone, and kept repositories. */
async function refuseAmongNodes(coordinator: Coordinator, own: PlacedStore): Promise<boolean> {
  let seen = 0;
  for await (const entry of scan(coordinator, keys.repos)) {
    const { voters, name } = decodeRepository(entry);
    const node = voters.find(({ nodeId }) => nodeId !== loneNodeId);
    const here = voters.find(({ storeId }) => storeId === own.storeId);
    if (here !== undefined) return here.nodeId === loneNodeId;
    if (node !== undefined) {
      throw new QuorateError(
        'failed-precondition',
        `this etcd is a cluster's: ${name} is on the storage node ${node.nodeId}, which is not running; ` +
          'make this process a member with --cluster-secret-file (or certificates, cluster.tls.*), or give it an etcd.prefix of its own',
        { details: { nodeId: node.nodeId } },
      );
    }
    seen += 1;
    if (seen >= lookedAt) break;
  }
  return false;
}

/** What a server that stands alone calls itself as a node. */
export const loneNodeId = 'local';

const remedyOfServer =
  'give this one an etcd.prefix of its own, or make both members of a cluster with --cluster-secret-file, that one first';
const remedyOfMember =
  "start that one first with the cluster's secret, as its first member with a store, or give the cluster an etcd.prefix of its own";

function taken(
  { host, directory, storeId, member }: z.infer<typeof schema>,
  remedy: string,
  prefix: string,
): QuorateError {
  return new QuorateError(
    'failed-precondition',
    `this etcd has the repositories of a server that ${member === true ? 'was the first member of a cluster' : 'stands alone'}, in ${directory} on ${host}: ${remedy}; nothing was changed. ` +
      'If that server was started by mistake and nothing of it is to be kept, or its store is gone for good, ' +
      `stop it and run etcdctl del '${prefix}${keys.loneStore}'`,
    { details: { host, directory, storeId } },
  );
}

function notAsked(): QuorateError {
  return new QuorateError(
    'failed-precondition',
    'this process has nothing by which members of a cluster know each other, and nobody has said that it is to be the only server on this etcd: ' +
      'make it a member with --cluster-secret-file (or certificates, cluster.tls.*), or say so with --alone; nothing was changed',
  );
}

function unchanged(found: KeyValue | undefined) {
  return {
    key: keys.loneStore,
    target: 'modRevision' as const,
    op: '=' as const,
    operand: found?.modRevision ?? 0,
  };
}

function decode(kv: KeyValue): z.infer<typeof schema> {
  try {
    return schema.parse(JSON.parse(new TextDecoder().decode(kv.value)));
  } catch (cause) {
    throw new QuorateError('data-corrupt', `the coordinator's record ${kv.key} is damaged`, {
      cause,
    });
  }
}
