"""Options of what goes to a hub when a model is published."""

from dataclasses import dataclass

from hf_genmodels.errors import UserError
from hf_genmodels.hub.repository import check_login, check_repo_id


@dataclass
class HubConfig:
    """Whether and where a script uploads what it publishes."""

    push_to_hub: bool = False
    """Upload what is published, in the background, every time; a failed upload stops nothing."""

    hub_model_id: str | None = None
    """Repository to upload to, such as user/name."""

    hub_private: bool = False
    """Create the repository as a private one."""

    def check_hub(self) -> None:
        """Check what can be checked without a network.

        Raises:
            UserError: If the name of the repository is missing or cannot be one.
        """
        if self.push_to_hub and not self.hub_model_id:
            raise UserError("--push_to_hub needs --hub_model_id user/name.")
        if self.hub_model_id:
            check_repo_id(self.hub_model_id)

    def check_login(self) -> None:
        """Check, before the work begins, that its result can be uploaded.

        Raises:
            UserError: If nobody is logged in.
        """
        if self.push_to_hub:
            check_login()
