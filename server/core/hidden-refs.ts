import { listSetting, type StoredSettings } from '../../backends/contract/settings.js';
import { refsWithout, type VisibleRefs } from '../../backends/contract/visible-refs.js';

/** What is hidden may differ by direction: `uploadpack.hideRefs` and `receive.hideRefs`. */
export type RefAudience = 'uploadpack' | 'receive';

/** The service's own list comes after `transfer.hideRefs`, so that it can refine it. */
export function visibleRefs(settings: StoredSettings, audience: RefAudience): VisibleRefs {
  return refsWithout([
    ...listSetting(settings, 'transfer.hideRefs'),
    ...listSetting(settings, `${audience}.hideRefs`),
  ]);
}
