"""Assets of Open Images: from labels and boxes to chips of big cats, and networks that name them."""
