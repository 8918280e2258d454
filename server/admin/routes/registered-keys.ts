import { z } from 'zod';
import type { QuorateError } from '../../../backends/contract/errors.js';
import { mayAdministerServer } from '../../auth/access-rules.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { listedOwner, requireAccount, requireKeyWriter } from '../permissions.js';
import { nothing, userName } from './fields.js';

interface RegisteredKey {
  readonly fingerprint: string;
  readonly user: string;
}

/** Public keys of one kind that users have registered. */
export interface KeyRegistry<Key extends RegisteredKey> {
  /** Of the collection, below `/api/v1`. */
  readonly path: string;
  /** In actions: `key.list`, `key.add`, `key.remove`. */
  readonly action: string;
  /** Names of one, and of all, in answers. */
  readonly one: string;
  readonly all: string;
  /** Characters of what is pasted as one. */
  readonly maxLength: number;
  /** Of one user; undefined: of all. */
  list(user: string | undefined): Promise<readonly Key[]>;
  add(user: string, text: string): Promise<Key>;
  remove(fingerprint: string): Promise<void>;
  readonly shown: (key: Key) => object;
  readonly noSuch: (fingerprint: string) => QuorateError;
  /** Whether there is such a user; `not-found` if not. */
  readonly requireUser: (user: string) => Promise<void>;
}

/** People manage their own keys, server administrators everybody's. */
export function registeredKeyEndpoints<Key extends RegisteredKey>(
  registry: KeyRegistry<Key>,
): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: registry.path,
    action: `${registry.action}.list`,
    input: z.strictObject({ user: userName.optional() }),
    run: async (call, { user }) => {
      const owner = listedOwner(call.principal, user);
      if (owner !== undefined) await registry.requireUser(owner);
      const found = await registry.list(owner);
      return { status: 200, body: { [registry.all]: found.map(registry.shown) } };
    },
  });

  const add = endpoint({
    method: 'post',
    path: registry.path,
    action: `${registry.action}.add`,
    input: z.strictObject({ user: userName, key: z.string().min(1).max(registry.maxLength) }),
    // Key material stays out of the trail; the fingerprint says which key it was.
    shown: ({ user }) => ({ user }),
    run: async (call, { user, key }) => {
      requireKeyWriter(call.principal, user);
      const added = await registry.add(user, key);
      call.note({ fingerprint: added.fingerprint });
      return { status: 201, body: { [registry.one]: registry.shown(added) } };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: `${registry.path}/:fingerprint`,
    action: `${registry.action}.remove`,
    input: nothing,
    run: async (call) => {
      requireAccount(call.principal);
      const fingerprint = call.param('fingerprint');
      if (!mayAdministerServer(call.principal) && call.principal.kind === 'user') {
        const own = await registry.list(call.principal.name);
        // Another's key is as good as none: who owns which key is nobody else's business.
        if (!own.some((key) => key.fingerprint === fingerprint)) {
          throw registry.noSuch(fingerprint);
        }
        requireKeyWriter(call.principal, call.principal.name);
      }
      await registry.remove(fingerprint);
      return { status: 200, body: { removed: fingerprint } };
    },
  });

  return [list, add, remove];
}
