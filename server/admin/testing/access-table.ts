import { accountRows } from './access/account-rows.js';
import { guardRows } from './access/guard-rows.js';
import { repositoryRows } from './access/repository-rows.js';
import type { Row } from './access/row.js';
import { serverRows } from './access/server-rows.js';
import { webhookRows } from './access/webhook-rows.js';

export { newKey, newOpenpgpKey } from './access/cells.js';
export { type Place, type PrincipalName, principals, trust } from './access/row.js';

/** Who may do what over the admin API: see `access/row.ts`. */
export const rows: readonly Row[] = [
  ...accountRows,
  ...repositoryRows,
  ...guardRows,
  ...webhookRows,
  ...serverRows,
];
