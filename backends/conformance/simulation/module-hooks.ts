/**
 * Module hooks of a simulating process (node:module, `register`): the code under simulation gets simulated disks in
 * place of `node:fs/promises`, and chance from the seed in place of `node:crypto`'s. A mutant's change to the compiled
 * code is made here as well, so that the code itself knows nothing of all this.
 */
import type { LoadHook, ResolveHook } from 'node:module';
import { applyMutation, type Mutation } from './mutation.js';

let mutation: Mutation | undefined;

export function initialize(data: { readonly mutation?: Mutation }): void {
  mutation = data.mutation;
}

const substitutes: Readonly<Record<string, string>> = {
  'node:fs/promises': './simulated-files.js',
  'node:crypto': './simulated-crypto.js',
};

/** For the embedded coordinator alone. */
const embedded: Readonly<Record<string, string>> = {
  lmdb: './simulated-lmdb.js',
  koffi: './simulated-lmdb.js',
  'node:fs': './simulated-lmdb.js',
};

export const resolve: ResolveHook = async (specifier, context, next) => {
  const parent = context.parentURL ?? '';
  const own = parent.includes('/backends/coordination/embedded/') ? embedded[specifier] : undefined;
  const substitute = own ?? substitutes[specifier];
  const simulated = /\/backends\/(?:local|git|replicated|coordination|node)\//.test(parent);
  if (substitute === undefined || !simulated) return next(specifier, context);
  return { url: new URL(substitute, import.meta.url).href, shortCircuit: true };
};

export const load: LoadHook = async (url, context, next) => {
  const loaded = await next(url, context);
  if (mutation === undefined || loaded.source === undefined || loaded.source === null)
    return loaded;
  if (typeof loaded.source !== 'string' && !(loaded.source instanceof Uint8Array)) return loaded;
  const source = Buffer.from(loaded.source).toString('utf8');
  const mutated = applyMutation(mutation, url, source);
  return mutated === undefined ? loaded : { ...loaded, source: mutated };
};
