/** Jest's transform: Node's own type stripping, so that tests run the very text that production runs. */
import { stripTypeScriptTypes } from 'node:module';

export default {
  process: (source) => ({ code: stripTypeScriptTypes(source) }),
};
