import type { RepositoryRecord } from '../records.js';

/** What tests do not care about in the record of a repository: a living one without settings, and without copies. */
export const plainRecord = {
  objectFormat: 'sha1',
  settings: {},
  access: { public: false, grants: {} },
  epoch: 1,
  createdAtMs: 0,
  state: 'active',
  voters: [],
  learners: [],
} satisfies Omit<RepositoryRecord, 'id' | 'name'>;
