import type { RuleDependencies } from '../rules/judge-rules.js';

/** For tests of something else: there are no rules, and nothing is set. */
export const noRules: RuleDependencies = {
  rules: {
    list: async () => [],
    inForce: async () => [],
    put: async () => ({ replaced: false }),
    remove: async () => undefined,
    removeAll: async () => undefined,
    move: async () => undefined,
  },
  signers: async () => ({ ssh: '', openpgp: new Uint8Array() }),
  messages: { firstMismatch: async () => undefined },
  meter: { count: () => undefined, observe: () => undefined, gauge: () => undefined },
};
